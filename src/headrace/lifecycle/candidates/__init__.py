"""From a trigger to the decision: trained or taken in, evaluated, sealed, registered, gated, tried out in dev."""
