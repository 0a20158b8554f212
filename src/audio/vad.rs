//! stub
#[derive(Debug)] pub struct Vad; #[derive(Clone,Copy,Default)] pub struct VadConfig{ pub onset_ms:u32 }
pub enum VadEvent{Onset{at:u64},Offset{at:u64}}
impl Vad{ pub fn new(_:u32,_:VadConfig)->Result<Self,()>{Ok(Self)} pub fn process(&mut self,_:&[i16],_f:impl FnMut(VadEvent)){} }
