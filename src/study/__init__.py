# SPDX-License-Identifier: Apache-2.0
"""The paper's own studies, each a table, a picture and a JSON file; see `scripts/reproduce.py`."""
