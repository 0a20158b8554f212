//! The examples themselves, word for word, each under the guide that has it.

use serde_json::Value;

/// An example as JSON.
pub(super) fn json(example: &str) -> Value {
    serde_json::from_str(example).unwrap()
}

// A guide to calls with Telnyx.

pub(super) const DIAL: &str = r#"{
  "to": "+1234567890",
  "from": "+0987654321",
  "agentId": "agent-id-here"
}"#;

/// The record is left open there.
pub(super) const DIALLED: &str = r#"{
  "success": true,
  "data": {
    "callId": "call-control-id",
    "status": "initiated",
    "direction": "outbound-dial",
    "streamUrl": "wss://your-domain.com/audio-stream",
    "dbRecord": {}
  }
}"#;

pub(super) const END: &str = r#"{
  "call_control_id": "call-control-id"
}"#;

pub(super) const WEBHOOK: &str = r#"{
  "data": {
    "event_type": "call.answered",
    "payload": {
      "call_control_id": "call-id",
      "to": "+1234567890",
      "from": "+0987654321"
    }
  }
}"#;

/// `duration_seconds` is of the end of a call.
pub(super) const CALL_EVENT: &str = r#"{
  "type": "call.answered",
  "id": "event-id",
  "occurred_at": "2024-01-01T12:00:00Z",
  "payload": {
    "call_control_id": "call-id",
    "to": "+1234567890",
    "from": "+0987654321"
  }
}"#;

pub(super) const AUDIO_CONNECTED: &str = r#"{
  "event": "connected",
  "message": "Connected to audio stream",
  "config": {
    "format": "PCMU",
    "sampleRate": 8000,
    "channels": 1
  }
}"#;

pub(super) const AUDIO_START: &str = r#"{
  "event": "start",
  "stream_id": "unique-stream-id",
  "start": {
    "media_format": "audio/PCMU",
    "sample_rate": 8000,
    "channels": 1
  }
}"#;

pub(super) const AUDIO_MEDIA: &str = r#"{
  "event": "media",
  "stream_id": "unique-stream-id",
  "media": {
    "track": "inbound",
    "chunk": "1",
    "timestamp": "1234567890",
    "payload": "base64-encoded-audio-data"
  }
}"#;

pub(super) const AUDIO_STOP: &str = r#"{
  "event": "stop",
  "stream_id": "unique-stream-id"
}"#;

// A guide for vendors of the `ucid` dialect.

pub(super) const UCID_START: &str = r#"{
  "event": "start",
  "ucid": "unique-call-id-123",
  "type": "text"
}"#;

/// Its samples are left open there: `SAMPLES` is replaced.
pub(super) const UCID_MEDIA: &str = r#"{
  "event": "media",
  "type": "media",
  "ucid": "unique-call-id-123",
  "data": {
    "samples": [SAMPLES],
    "bitsPerSample": 16,
    "sampleRate": 8000,
    "channelCount": 1,
    "numberOfFrames": 80,
    "type": "data"
  }
}"#;

pub(super) const UCID_STOP: &str = r#"{
  "event": "stop",
  "ucid": "unique-call-id-123",
  "type": "text"
}"#;

// The Exotel integration guide.

pub(super) const NUMBER: &str = r#"{
  "phoneNumber": "+919876543210",
  "displayName": "Support Line",
  "provider": "exotel",
  "exotelConfig": {
    "apiKey": "your_api_key",
    "apiToken": "your_api_token",
    "sid": "your_account_sid",
    "appId": "optional_app_id",
    "domain": "api.in.exotel.com",
    "region": "in"
  },
  "linkedAgentId": "agent_id"
}"#;

pub(super) const NUMBERS: &str = r#"{
  "success": true,
  "phoneNumbers": [
    {
      "id": "...",
      "phoneNumber": "+919876543210",
      "displayName": "Support Line",
      "provider": "exotel",
      "linkedAgentId": "agent_123",
      "webhookUrl": "https://...",
      "websocketUrl": "wss://...",
      "status": "active"
    }
  ]
}"#;

pub(super) const NUMBER_CHANGE: &str = r#"{
  "id": "phone_id",
  "displayName": "New Name",
  "linkedAgentId": "new_agent_id",
  "status": "active"
}"#;

pub(super) const EXOTEL_WEBHOOK: &str = r#"{
  "CallSid": "unique_call_id",
  "From": "+919876543210",
  "To": "+911234567890",
  "Status": "in-progress"
}"#;

// A backend's guide to calls with Teler.

pub(super) const TELER_DIAL: &str = r#"{
  "from_number": "+918065193776",
  "to_number": "+916360154904",
  "flow_url": "https://your-backend-domain.com/flow",
  "status_callback_url": ""
}"#;

pub(super) const TELER_DIALLED: &str = r#"{
  "success": true,
  "data": {
    "call_id": "call_123456789",
    "status": "initiated",
    "from_number": "+918065193776",
    "to_number": "+916360154904",
    "flow_url": "https://your-backend-domain.com/flow",
    "timestamp": "2025-01-27T10:30:00"
  },
  "message": "Call initiated successfully"
}"#;

pub(super) const TELER_ACTIVE: &str = r#"{
  "success": true,
  "data": [
    {
      "call_id": "call_123456789",
      "stream_id": "stream_abc123",
      "connection_id": "conn_xyz789",
      "from": "+918065193776",
      "to": "+916360154904",
      "status": "active",
      "started_at": "2025-01-27T10:30:00",
      "encoding": "audio/l16",
      "sample_rate": 8000
    }
  ],
  "count": 1
}"#;

pub(super) const TELER_CONVERSATION: &str = r#"{
  "history": [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi there!"}
  ],
  "current_input": "How can you help me?",
  "call_id": "call_123456789",
  "context": {}
}"#;

pub(super) const TELER_FLOW: &str = r#"{
  "action": "stream",
  "ws_url": "wss://your-domain.com/media-stream",
  "chunk_size": 500,
  "record": true
}"#;

pub(super) const TELER_START: &str = r#"{
  "type": "start",
  "account_id": "uuid",
  "call_id": "uuid",
  "stream_id": "uuid",
  "data": {
    "encoding": "audio/l16",
    "sample_rate": 8000,
    "channels": 1
  }
}"#;

pub(super) const TELER_AUDIO: &str = r#"{
  "type": "audio",
  "stream_id": "uuid",
  "message_id": 123,
  "data": {
    "audio_b64": "base64_encoded_audio"
  }
}"#;

pub(super) const TELER_AUDIO_OUT: &str = r#"{
  "type": "audio",
  "audio_b64": "base64_encoded_audio",
  "chunk_id": 123
}"#;

pub(super) const TELER_INTERRUPT: &str = r#"{
  "type": "interrupt",
  "chunk_id": 123
}"#;

pub(super) const TELER_CLEAR: &str = r#"{
  "type": "clear"
}"#;

// What a telephony frontend wants of its backend.

pub(super) const INIT: &str = r#"{
  "type": "init_telephony_stream",
  "call_id": "string",
  "language": "auto|en|es|fr|de",
  "model": "nova-2",
  "client_type": "telephony"
}"#;

pub(super) const AGENT_MESSAGE: &str = r#"{
  "type": "agent_message",
  "call_id": "string",
  "message": "Hello! Thank you for calling. How can I help you today?",
  "language": "auto",
  "timestamp": "2024-01-01T12:00:00Z"
}"#;

pub(super) const UPDATE_STATUS: &str = r#"{
  "type": "update_call_status",
  "call_id": "string",
  "status": "answered|in_progress|ended",
  "timestamp": "2024-01-01T12:00:00Z"
}"#;

pub(super) const AUDIO_DATA: &str = r#"{
  "type": "audio_data",
  "call_id": "string",
  "audio_data": "base64_encoded_audio",
  "sample_rate": 8000,
  "encoding": "MULAW",
  "timestamp": "2024-01-01T12:00:00Z"
}"#;

pub(super) const STATUS_UPDATE: &str = r#"{
  "type": "call_status_update",
  "call_id": "string",
  "status": "incoming|answered|in_progress|ended",
  "timestamp": "2024-01-01T12:00:00Z"
}"#;

pub(super) const INCOMING: &str = r#"{
  "type": "call_status_update",
  "call_id": "generated_call_id",
  "status": "incoming",
  "customer_number": "+1234567890",
  "organization_number": "+0987654321",
  "timestamp": "2024-01-01T12:00:00Z"
}"#;

/// The confidence is no number where a recogniser's means nothing, and the language is not always told.
pub(super) const TRANSCRIPT: &str = r#"{
  "type": "customer_transcript",
  "call_id": "string",
  "transcript": "Hello, I need help with my account",
  "is_final": true,
  "confidence": null,
  "detected_language": null,
  "timestamp": "2024-01-01T12:00:00Z"
}"#;

pub(super) const TTS_AUDIO: &str = r#"{
  "type": "agent_tts_audio",
  "call_id": "string",
  "audio_data": "base64_encoded_audio",
  "message": "Original text that was synthesized",
  "timestamp": "2024-01-01T12:00:00Z"
}"#;

pub(super) const TELEPHONY_CONNECTED: &str = r#"{
  "type": "telephony_connected",
  "call_id": "string",
  "status": "ready"
}"#;

pub(super) const TELEPHONY_ERROR: &str = r#"{
  "type": "telephony_error",
  "call_id": "string",
  "error_code": "CONNECTION_FAILED|TTS_ERROR|STT_ERROR|TWILIO_ERROR",
  "message": "Detailed error message",
  "timestamp": "2024-01-01T12:00:00Z"
}"#;
