"""From a label table to a trained model."""
