"""From the wire to samples: RTP in order and on time, decoded straight to 16 kHz mono."""
