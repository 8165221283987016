# Filled in with the package's parts.
