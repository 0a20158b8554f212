//! Pure signal processing over slices, and the rings samples travel in. Nothing here allocates after construction, does I/O or reads a clock.

pub mod ring;
