//! Byte formats, slices in and out: base64, JSON and how it differs from what was wanted, arrays of numbers, forms, XML text,
//! signatures. No sockets, no knowledge of any vendor.

pub mod base64;
pub mod form;
pub mod json;
pub mod multipart;
pub mod numbers;
pub mod shape;
pub mod sign;
pub mod xml;
