"""A user's own conf/ in the working folder adds to the options of the installed package, without being named."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class OwnConf(SearchPathPlugin):
    """Appends conf/ of the working folder, where it is not the main one; Hydra finds this class by itself."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folder as the last one: an option that the package has as well stays the package's."""
        # Hydra loads every plugin when it starts; other programs that use Hydra pay for no import of ours.
        from diffsweep.project import added_conf, main_conf

        folder = added_conf()
        mains = {str(one.path).removeprefix("file://") for one in search_path.get_path() if one.provider == "main"}
        if folder is not None and str(main_conf()) in mains:
            search_path.append("diffsweep", f"file://{folder}")
