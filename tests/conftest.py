"""Every test may use the namespace fixtures of `tests.pytest_netns`."""

pytest_plugins = ("tests.pytest_netns.plugin",)
