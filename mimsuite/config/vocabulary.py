"""All that the recipe classes of a method file are made of, in one import for short plugins."""

# ruff: noqa: F403
from mimsuite.config.encoders import *
from mimsuite.config.masks import *
from mimsuite.config.section import *
from mimsuite.config.sections import *
from mimsuite.config.targets import *
