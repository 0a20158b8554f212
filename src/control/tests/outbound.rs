//! Calls that we place, end and hand on, through the vendor's REST interface.

use super::*;

fn to(number: &str) -> DialRequest {
    DialRequest {
        to: number.into(),
        ..DialRequest::default()
    }
}

fn outbound(sid: &str, news: CallNews) -> CallUpdate {
    CallUpdate {
        from: OURS.into(),
        to: CALLER.into(),
        inbound: false,
        ..update(sid, news)
    }
}

#[tokio::test]
async fn a_placed_call_is_on_record_before_the_vendor_is_asked_and_joins_its_stream() {
    let mut world = World::start().await;
    world.rest.will_reply(200, "sid");
    let row = world.control.dial(TENANT, to(CALLER)).await.unwrap();
    assert_eq!((row.call_sid.as_str(), row.status), ("sid", CallStatus::Initiated));
    assert!(row.session_id.starts_with("sid-"));
    assert_eq!(world.rest.asked(), [format!("/dial/{CALLER}")]);
    assert_eq!(world.row("sid").await.organization_number, OURS);
    world
        .control
        .update(vendor(), outbound("sid", CallNews::Ringing))
        .await
        .unwrap();
    world.status("ringing").await;
    let answer = world
        .control
        .incoming(vendor(), outbound("sid", CallNews::Answered))
        .await
        .unwrap();
    let mut leg = world.connect(Some(&token_of(&answer)), "sid").await.leg().await;
    leg.play().await;
    world.status("in_progress").await;
}

#[tokio::test]
async fn a_call_the_vendor_refuses_tells_why_and_is_on_record_as_failed() {
    let mut world = World::start().await;
    world.rest.will_reply(400, "");
    let fault = world.control.dial(TENANT, to(CALLER)).await.unwrap_err();
    assert_eq!(fault.message, "the vendor said 400");
    assert_eq!(world.fault().await, (vendor().error_code, Some(vendor().name)));
    world.status("ended").await;
    let page = world
        .store
        .calls(
            TENANT,
            CallFilter {
                limit: 9,
                ..CallFilter::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(page.calls[0].end_reason, Some(EndReason::Failed));
}

#[tokio::test]
async fn a_vendor_that_says_too_many_is_asked_again() {
    let world = World::start().await;
    world.rest.will_reply(429, "");
    world.rest.will_reply(200, "sid");
    world.control.dial(TENANT, to(CALLER)).await.unwrap();
    assert_eq!(world.rest.asked().len(), 2);
}

#[tokio::test]
async fn what_cannot_be_dialled_is_refused_before_anybody_is_asked() {
    let world = World::start().await;
    for bad in ["", "911", "14155550100", "+0155550100", "sip:"] {
        assert_eq!(
            world.control.dial(TENANT, to(bad)).await.unwrap_err().kind,
            Kind::Invalid,
            "{bad}"
        );
    }
    for wrong in [
        DialRequest {
            from: "+14155550000".into(),
            ..to(CALLER)
        },
        DialRequest {
            vendor: Some("nobody".into()),
            ..to(CALLER)
        },
        DialRequest {
            agent: Some("nobody".into()),
            ..to(CALLER)
        },
    ] {
        assert_eq!(world.control.dial(TENANT, wrong).await.unwrap_err().kind, Kind::Invalid);
    }
    assert_eq!(
        world.control.dial(OTHER, to(CALLER)).await.unwrap_err().kind,
        Kind::Invalid,
        "another tenant's number"
    );
    let world = World::with(|s| s.credentials = false).await;
    assert_eq!(
        world.control.dial(TENANT, to(CALLER)).await.unwrap_err().kind,
        Kind::Conflict
    );
    assert_eq!(world.control.live(), 0);
}

#[tokio::test]
async fn a_callback_that_overtakes_the_vendors_reply_finds_its_call_by_the_numbers() {
    let mut world = World::start().await;
    world.shut_store(true);
    let control = world.control.clone();
    let dial = tokio::spawn(async move { control.dial(TENANT, to(CALLER)).await });
    world.until("the call begins", async || world.control.live() == 1).await;
    let control = world.control.clone();
    let callback = tokio::spawn(async move { control.update(vendor(), outbound("sid", CallNews::Ringing)).await });
    world.rest.will_reply(200, "sid");
    world.shut_store(false);
    callback.await.unwrap().unwrap();
    assert_eq!(dial.await.unwrap().unwrap().call_sid, "sid");
    world.status("ringing").await;
}

#[tokio::test]
async fn hanging_up_tells_the_vendor_and_then_everybody() {
    let mut world = World::start().await;
    let leg = world.call("sid").await;
    let row = world.control.hang_up(TENANT, "sid").await.unwrap();
    assert_eq!(
        (row.status, row.end_reason),
        (CallStatus::Ended, Some(EndReason::Completed))
    );
    assert_eq!(world.rest.asked(), ["/hangup/sid"]);
    assert_eq!(leg.wire.closed().await, 1000);
    world.status("ended").await;
    assert_eq!(world.control.call_exists(TENANT, "sid"), None);
}

#[tokio::test]
async fn a_vendor_that_fails_to_hang_up_is_named_and_the_call_goes_on() {
    let mut world = World::start().await;
    let mut leg = world.call("sid").await;
    world.rest.will_reply(500, "");
    let fault = world
        .control
        .set_status(TENANT, "sid", CallStatus::Ended)
        .await
        .unwrap_err();
    assert_eq!((fault.origin, fault.kind), (Origin::Vendor, Kind::BadGateway));
    assert_eq!(world.fault().await, (vendor().error_code, Some(vendor().name)));
    leg.play().await;
    world.message("heard").await;
    assert_eq!(world.row("sid").await.status, CallStatus::InProgress);
    world.control.hang_up(TENANT, "sid").await.unwrap();
}

#[tokio::test]
async fn without_credentials_the_socket_is_closed_instead() {
    let mut world = World::with(|s| s.credentials = false).await;
    let leg = world.call("sid").await;
    world.control.hang_up(TENANT, "sid").await.unwrap();
    assert_eq!(leg.wire.closed().await, 1000);
    assert!(world.rest.asked().is_empty());
}

#[tokio::test]
async fn a_person_moves_a_call_forward_only() {
    let mut world = World::start().await;
    world.announce("sid").await;
    world
        .control
        .set_status(TENANT, "sid", CallStatus::InProgress)
        .await
        .unwrap();
    world
        .control
        .set_status(TENANT, "sid", CallStatus::Answered)
        .await
        .unwrap();
    assert_eq!(world.row("sid").await.status, CallStatus::InProgress);
    world.status("in_progress").await;
    let back = world.control.set_status(TENANT, "sid", CallStatus::Incoming).await;
    assert_eq!(back.unwrap_err().kind, Kind::Invalid);
}

#[tokio::test]
async fn a_script_transfers_and_listens_on_when_the_vendor_will_not() {
    let mut world = World::start().await;
    let mut leg = world.call("sid").await;
    leg.play().await;
    world.rest.will_reply(500, "");
    leg.hear_phrase(TRANSFER);
    world.fault().await;
    leg.hear_phrase(HOURS);
    leg.play().await;
    leg.hear_phrase(TRANSFER);
    world
        .until("it is asked again", async || world.rest.asked().len() == 2)
        .await;
    leg.end(LegEnd::Stopped).await;
    world.status("ended").await;
    world
        .until("the transfer is on record", async || {
            world.row("sid").await.metadata["transferred_to"] == "+14155550177"
        })
        .await;
}

#[tokio::test]
async fn a_call_that_rings_on_is_over_here_and_its_late_answer_gets_nothing() {
    let mut world = World::with(|s| s.hangs_up = false).await;
    world.rest.will_reply(200, "sid");
    let row = world.control.dial(TENANT, to(CALLER)).await.unwrap();
    assert!(world.control.rings_on(TENANT, "sid") && !world.control.rings_on(OTHER, "sid"));
    let entry = world.control.shared.directory.get(row.call_id).unwrap();
    let token = token_of(&world.control.shared.stream_answer(&entry));
    drop(entry);
    let ended = world.control.hang_up(TENANT, "sid").await.unwrap();
    assert_eq!(ended.end_reason, Some(EndReason::Canceled));
    world.status("ended").await;
    let late = world
        .control
        .incoming(vendor(), outbound("sid", CallNews::Answered))
        .await;
    assert_eq!(late, Ok(Answer::HangUp));
    assert_eq!(world.connect(Some(&token), "sid").await.closed().await, 1008);
    assert_eq!(world.rest.asked(), [format!("/dial/{CALLER}")]);
    assert!(!world.control.rings_on(TENANT, "sid"));
    assert_eq!(world.row("sid").await.answered_at, None);
}

#[tokio::test]
async fn an_account_at_an_address_of_this_network_is_refused_when_it_is_written() {
    let world = World::with(|s| s.tenant_http = HttpClient::to_public_addresses()).await;
    let spec = |base: &str| {
        let account =
            serde_json::json!({"accountSid": "AC00000000000000000000000000000001", "authToken": "x", "baseUrl": base});
        NumberSpec {
            number: Some("+14155550111".into()),
            vendor: Some(vendor().name.into()),
            account: Some((vendor().name, account.as_object().unwrap().clone())),
            ..NumberSpec::default()
        }
    };
    for private in [
        "https://127.0.0.1:8443",
        "https://10.1.2.3",
        "https://localhost",
        "http://93.184.216.34",
    ] {
        let fault = world.control.add_number(TENANT, spec(private)).await.unwrap_err();
        assert_eq!(fault.kind, Kind::Invalid, "{private}");
        assert!(
            fault.message.contains("baseUrl") && fault.message.contains("public"),
            "{fault}"
        );
    }
    let line = world
        .control
        .add_number(TENANT, spec("https://93.184.216.34"))
        .await
        .unwrap();
    let mut moved = spec("https://192.168.0.9");
    (moved.number, moved.vendor) = (None, None);
    let fault = world
        .control
        .change_number(TENANT, line.row.id.as_str(), moved)
        .await
        .unwrap_err();
    assert!(
        fault.kind == Kind::Invalid && fault.message.contains("baseUrl"),
        "{fault}"
    );
}
