import sys
from types import ModuleType

# TensorBoard looks for this module: where it is missing and TensorFlow is installed, writing events imports TensorFlow
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
