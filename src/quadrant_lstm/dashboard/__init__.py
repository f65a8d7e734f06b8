import sys
from types import ModuleType

# tensorboard looks for this one: without it, where TensorFlow is installed, writing events imports all of that
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
