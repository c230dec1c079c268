"""What goes wrong while clients work: each fault is a small class with a name; the report counts them by it.

Flow: the runner calls `inject` in the middle of a round's load; it returns when the fault is over or the thing is
broken for good; `Rig.heal` mends what is left at the end of the round. None are here yet but the one that does nothing.
"""

from abc import ABC, abstractmethod
from random import Random

from consistency.rig import Rig


class Fault(ABC):
    """One way to break something."""

    name: str

    @abstractmethod
    def inject(self, rig: Rig, chance: Random) -> bool:
        """Does it. False when it could not be done here."""


FAULTS: tuple[type[Fault], ...] = ()
