"""What the tests of training loops share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # preferences.py, which the tests import
