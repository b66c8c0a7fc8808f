"""A wind tunnel for language models: build small ones, train them on the machine you have, look inside, compare.

    import windtunnel as wt

    seeds = wt.train("names", recipe="tiny", seeds=4)            # four runs of one config, and their mean
    model = wt.load("last")                                      # the newest run
    print(model.generate("mar", tokens=8))
    wt.compare("names", vary={"model.position": ["learned", "rope"]}, seeds=6)

The names are imported when they are used: `import windtunnel` loads neither torch nor numpy.
"""

from typing import TYPE_CHECKING

from windtunnel import stats
from windtunnel.lazy import importing, modules_of

if TYPE_CHECKING:
    from windtunnel.errors import WindtunnelError
    from windtunnel.library.checking import Diagnosis, check
    from windtunnel.library.comparing import compare, judge, vary
    from windtunnel.library.experimenting import experiment, list_experiments
    from windtunnel.library.model import Model, load
    from windtunnel.library.pretrained import export, import_model
    from windtunnel.library.settings import recipe
    from windtunnel.library.training import Seeds, train

__version__ = "0.1.0"

_MODULES = modules_of(
    "windtunnel",
    {
        "errors": "WindtunnelError",
        "library.checking": "Diagnosis check",
        "library.comparing": "compare judge vary",
        "library.experimenting": "experiment list_experiments",
        "library.model": "Model load",
        "library.pretrained": "export import_model",
        "library.settings": "recipe",
        "library.training": "Seeds train",
    },
)
__all__ = [
    "Diagnosis", "Model", "Seeds", "WindtunnelError", "__version__", "check", "compare", "experiment", "export",
    "import_model", "judge", "list_experiments", "load", "recipe", "stats", "train", "vary",
]  # fmt: skip


__getattr__ = importing("windtunnel", _MODULES)


def __dir__() -> list[str]:
    return __all__
