"""What every check measured, over time: values of the local store, series, change points."""
