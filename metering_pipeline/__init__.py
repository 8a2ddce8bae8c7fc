"""Usage metering that can be trusted with invoices."""
