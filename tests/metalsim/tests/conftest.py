from tests.metalsim.fixtures import compiler, simulated, simulated_unchecked

__all__ = ["compiler", "simulated", "simulated_unchecked"]
