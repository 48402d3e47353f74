"""What priors are worth on people that they have not seen."""
