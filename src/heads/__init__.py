# SPDX-License-Identifier: Apache-2.0
"""What stands on a backbone's four maps, for tasks that ask where in an image something is."""
