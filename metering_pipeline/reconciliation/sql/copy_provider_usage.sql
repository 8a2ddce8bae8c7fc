-- Takes in what a provider said.
copy told (customer, meter, starts_at, ends_at, value, place) from stdin
