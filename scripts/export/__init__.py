"""Export of a trained run to other projects' formats."""
