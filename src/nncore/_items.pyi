"""The types of a step's items."""

from ._layout import Layout
from ._team import Team

class Items(Layout):
    @property
    def team(self) -> Team: ...
    @property
    def in_blocks(self) -> bool: ...
