"""The sentences that every statement has."""

TEXTS = {
    "usage": "Days are UTC days; the first and the last one count from and to the edge of the service period.",
    "digests": (
        "Every usage event has a fingerprint, made from the customer, the type, the time and the request's id alone. "
        "A line's event digest adds up the last 64 bits of the fingerprint of each event that it counts, its payload "
        "digest the same of what each event says. Whoever keeps the events can add them up too: where number and digests agree, these very events were "
        "billed, each once, and none is missing."
    ),
    "chain": (
        "The hash of a document is the SHA-256 of all that it says, the hash of the document before it included. "
        "The documents of a series are a chain: none can be changed, removed or slipped in later without the hashes "
        "after it ceasing to agree."
    ),
}
