//! What browsers let a pod do, where the configuration does not say otherwise.

/// What a pod may load and talk to: inline scripts, WebAssembly, any signalling broker, and the model CDNs of the
/// in-browser fallback. The reference's policy blocks that fallback; these two sources are all that it lacks:
///
/// - `script-src blob:`, because ONNX Runtime, which Transformers.js brings, imports its WebAssembly factory from a blob;
/// - `connect-src https://gemmapod.com/api/browser-models`, the runtime's list of models.
pub const POD_CSP: &str = "default-src 'none'; \
    script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob: https://cdn.jsdelivr.net; \
    style-src 'self' 'unsafe-inline'; \
    connect-src 'self' wss: stun: https://gemmapod.com/api/browser-models https://cdn.jsdelivr.net https://huggingface.co https://*.hf.co https://cas-bridge.xethub.hf.co; \
    worker-src 'self' blob:; \
    img-src 'self' data: blob:; \
    font-src 'self' data:; \
    frame-ancestors *; \
    form-action 'none'; \
    base-uri 'self'";

/// The browser features that a pod may not use.
pub const POD_PERMISSIONS: &str = "camera=(), microphone=(), geolocation=(), payment=(), usb=(), \
    magnetometer=(), accelerometer=(), gyroscope=()";
