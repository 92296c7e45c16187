"""Recorded inputs: entropy traces, arrival traces, prompts, device profiles.

Import the modules by name: only the ones that read entropy traces load pyarrow.
"""
