"""What setup.cfg has no words for: two folders of the repository are installed inside the package,
scripts/ as coordtok.commands and ds_configs/ as coordtok.ds_configs."""

from setuptools import find_packages, setup

MOVED = {"coordtok.commands": "scripts", "coordtok.ds_configs": "ds_configs"}

setup(packages=[*find_packages(include=["coordtok*", "data_prep*"]), *MOVED], package_dir=MOVED)
