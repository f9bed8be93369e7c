"""Walks trees, quickly: the C half of mlinfer's compiled forests."""

from mlinfer_fast._trees import Trees

__all__ = ["Trees"]
