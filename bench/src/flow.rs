//! Later.
pub async fn rows() -> Vec<serde_json::Value> {
    Vec::new()
}
