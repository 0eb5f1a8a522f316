"""Public downloads into labelled datasets: `crack-md prepare oc20` and `rmd17`."""
