"""A wind tunnel for language models: build small ones, train them on the machine you have, look inside, compare.

    import windtunnel as wt

    seeds = wt.train("names", recipe="tiny", seeds=4)            # four runs of one config, and their mean
    model = wt.load("last")                                      # the newest run
    print(model.generate("mar", tokens=8))
    wt.compare("names", vary={"model.position": ["learned", "rope"]}, seeds=6)

The names are imported when they are used: `import windtunnel` loads neither torch nor numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from windtunnel import stats
    from windtunnel.errors import WindtunnelError
    from windtunnel.library.checking import Diagnosis, check
    from windtunnel.library.comparing import compare, judge, vary
    from windtunnel.library.experimenting import experiment, list_experiments
    from windtunnel.library.model import Model, load
    from windtunnel.library.pretrained import export, import_model
    from windtunnel.library.settings import recipe
    from windtunnel.library.training import Seeds, train

__version__ = "0.1.0"

_MODULES = {
    "WindtunnelError": "windtunnel.errors",
    "Diagnosis": "windtunnel.library.checking",
    "check": "windtunnel.library.checking",
    "compare": "windtunnel.library.comparing",
    "judge": "windtunnel.library.comparing",
    "vary": "windtunnel.library.comparing",
    "experiment": "windtunnel.library.experimenting",
    "list_experiments": "windtunnel.library.experimenting",
    "Model": "windtunnel.library.model",
    "load": "windtunnel.library.model",
    "export": "windtunnel.library.pretrained",
    "import_model": "windtunnel.library.pretrained",
    "recipe": "windtunnel.library.settings",
    "Seeds": "windtunnel.library.training",
    "train": "windtunnel.library.training",
}
__all__ = [
    "Diagnosis", "Model", "Seeds", "WindtunnelError", "__version__", "check", "compare", "experiment", "export",
    "import_model", "judge", "list_experiments", "load", "recipe", "stats", "train", "vary",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "stats":
        return import_module("windtunnel.stats")
    if name not in _MODULES:
        raise AttributeError(f"module 'windtunnel' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
