//! The Exotel integration guide: numbers over REST, the webhook's two encodings, its XML, and the number's own media socket.

use super::{Site, fits, guides};
use crate::daemon::place;
use serde_json::{Value, json};
use sidetone::{
    sim::{
        address::Address,
        caller::{Opening, Plan, Webhook},
        report::Ended,
        script::Manner,
    },
    vendor,
};
use std::time::Duration;

/// The agents that the guide's examples name.
const AGENTS: &str = r#"
[agents.agent_id]
kind = "echo"

[agents.new_agent_id]
kind = "echo"
"#;

async fn both() -> [Site; 2] {
    [
        Site::dev("[calls]\ndefault_agent = \"echo\"\n").await,
        Site::secure(AGENTS).await,
    ]
}

fn path(url: &Value) -> String {
    let url = url.as_str().unwrap();
    format!("/{}", url.splitn(4, '/').nth(3).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_imported_listed_changed_and_deleted_as_the_guide_says() {
    for site in both().await {
        let (status, answer) = site.ask("POST", "/api/phone-numbers", guides::NUMBER).await;
        assert_eq!(status, 200, "{answer}");
        let id = answer["phoneNumber"]["id"].as_str().unwrap();
        let mut listed = guides::json(guides::NUMBERS);
        if site.is_dev() {
            // Nobody is there of that name.
            listed["phoneNumbers"][0]["linkedAgentId"] = Value::Null;
        }
        let (_, numbers) = site.ask("GET", "/api/phone-numbers?userId=mukul", "").await;
        fits(&listed, &numbers);
        fits(&listed["phoneNumbers"][0], &answer["phoneNumber"]);

        let change = guides::NUMBER_CHANGE.replace("phone_id", id);
        let (status, answer) = site.ask("PUT", "/api/phone-numbers", &change).await;
        assert_eq!(
            (status, &answer["phoneNumber"]["displayName"]),
            (200, &json!("New Name")),
            "{answer}"
        );
        let gone = format!("/api/phone-numbers?id={id}");
        assert_eq!(site.ask("DELETE", &gone, "").await.0, 200);
        assert_eq!(site.ask("DELETE", &gone, "").await.0, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_in_json_or_as_a_form_is_answered_with_the_guides_xml() {
    for site in both().await {
        let (_, answer) = site.ask("POST", "/api/phone-numbers", guides::NUMBER).await;
        let hook = path(&answer["phoneNumber"]["webhookUrl"]);
        let form = ("content-type", "application/x-www-form-urlencoded");
        let fields = "CallSid=another_call_id&From=%2B919876543210&To=%2B911234567890&Status=in-progress";
        for (headers, body) in [(&[][..], guides::EXOTEL_WEBHOOK), (&[form][..], fields)] {
            let (status, xml) = site.send("POST", &hook, headers, body).await;
            assert_eq!(status, 200, "{xml}");
            for part in [
                "<Response>",
                "<Say>Hello! Please wait...</Say>",
                "<Connect>",
                "<Stream url=\"ws://",
                "/api/telephony/ws/",
                "<Parameter name=\"sessionId\" value=\"",
                "</Connect>",
                "</Response>",
            ] {
                assert!(xml.contains(part), "{part}: {xml}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_the_number_is_heard_both_ways_on_its_own_socket() {
    for site in both().await {
        let (_, answer) = site.ask("POST", "/api/phone-numbers", guides::NUMBER).await;
        let hook = path(&answer["phoneNumber"]["webhookUrl"]);
        let address: Address = format!("http://{}{hook}", site.daemon.address).parse().unwrap();
        let vendor = vendor::by_name("exotel").unwrap();
        let mut samples = vec![0; Plan::rate(vendor) as usize];
        sidetone::audio::tone::Noise::new(3).white(-20.0, &mut samples);
        let call = place(Plan {
            vendor,
            daemon: site.daemon.url(),
            opening: Opening::Webhook(Webhook {
                url_secret: None,
                signed_as: address.at("http", &hook),
                address,
                secret: None,
                account: Some("your_account_sid".to_owned()),
                rest: None,
            }),
            from: "+919876543210".to_owned(),
            to: "+911234567890".to_owned(),
            samples,
            manner: Manner::AsRecorded,
            format: None,
            faults: Vec::new(),
            linger: Duration::from_millis(500),
            limit: Duration::from_secs(30),
        });
        let report = call.await.unwrap().unwrap().report;
        assert_eq!((report.ended, report.refused), (Ended::Caller, vec![]));
        let echo = report.echo.expect("an echo");
        assert!(echo.bytes > 10_000 && echo.changed == 0, "{echo:?}");
        let (_, record) = site.ask("GET", &format!("/api/calls/{}", report.call_sid), "").await;
        assert_eq!(record["data"]["customer_number"], "+919876543210", "{record}");
        let session = record["data"]["session_id"].as_str().unwrap();
        assert!(session.starts_with(&report.call_sid), "{session}");
    }
}
