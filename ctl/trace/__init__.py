"""`podwirectl trace`: the way of a packet, hop by hop. Its door is `trace.follow`."""
