"""Say which tests this machine cannot run, and why."""

from tests.pytest_netns.tools import report

for line in report():
    print(line)
