"""Everything that recipe classes are built from, in one import for short plugins."""

# ruff: noqa: F403
from mimsuite.config.keys.encoders import *
from mimsuite.config.keys.masks import *
from mimsuite.config.keys.section import *
from mimsuite.config.keys.shared import *
from mimsuite.config.keys.targets import *
