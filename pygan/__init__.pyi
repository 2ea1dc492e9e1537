# For editors and type checkers, from which __getattr__ hides `load`.
from pygan.sampling import load as load

__version__: str
