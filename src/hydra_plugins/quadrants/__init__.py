"""The launchers and sweepers of this project: Hydra finds plugins only in the package hydra_plugins."""
