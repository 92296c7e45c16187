"""The contract of a law, as properties: what any law must keep, whoever wrote it."""

from reports.verify.contract.properties import PROPERTIES, ContractProperty, properties_of

__all__ = ["PROPERTIES", "ContractProperty", "properties_of"]
