//! Mix files, and reports as JSON.

use ldm_bench::{Mix, ServiceTarget};
use ldm_engine::Limits;
use ldm_engine::fake::{FakeExecutor, FakeOptions};

fn complaint(text: &str) -> String {
    Mix::parse(text).unwrap_err().to_string()
}

#[test]
fn the_built_in_mix_is_well_formed() {
    let mix = Mix::built_in().unwrap();
    assert!(mix.kinds.len() > 2 && mix.tenants.len() == 2);
}

#[test]
fn what_is_wrong_in_a_mix_is_named() {
    assert_eq!(complaint(""), "`kind` must be given from 1 to 64 times, not 0");
    assert_eq!(complaint("[[kind]]\n[[kind]]\nname='b'\nweight = -1"), "`kind[1].weight` must be above 0, not -1");
    assert_eq!(complaint("[[kind]]\n[[kind]]"), "`kind[1].name` must be different for each kind, not \"txt2img\" twice");
    assert!(complaint("[[kind]]\ntask = 'paint'").starts_with("`kind[0].task`: \"paint\" is no task; known: txt2img"));
    assert_eq!(complaint("[[kind]]\nimages = 0"), "`kind[0].images` must be at least 1, not 0");
    assert_eq!(complaint("[[kind]]\nraw = true\nimages = 2"), "`kind[0].images` must be 1 where `raw` is true, not 2");
    let tenant = "[[tenant]]\nname = 'a'\n[[kind]]\ntenant = 'b'";
    assert_eq!(complaint(tenant), "`kind[0].tenant` must be a `tenant` of this file (a), not \"b\"");
    assert_eq!(complaint("[[kind]]\npriority = 'high'"), "`kind[0].priority` must be interactive or batch, not \"high\"");
    assert_eq!(complaint("[[kind]]\ntask='img2img'\nwidth = 9000"), "`kind[0].width` must be from 1 to 4096, not 9000");
    let wrong_key = complaint("[[tenant]]\nname = 'a'\napi_key = \"secret\\n\"\n[[kind]]");
    assert_eq!(wrong_key, "`tenant[0].api_key` must be visible ASCII without blanks");
    for (text, field) in [("[[kind]]\nwieght = 1", "wieght"), ("[[kind]]\nsteps = 'many'", "steps")] {
        let said = complaint(text);
        assert!(said.contains(field) && said.contains("line 2"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_can_be_written_read_and_compared() {
    let executor = FakeExecutor::new(FakeOptions::default());
    let target = ServiceTarget::start(Limits::default(), executor.loader()).await.unwrap();
    let options = ldm_bench::Options {
        length: ldm_bench::Length::Requests(30),
        warmup: std::time::Duration::ZERO,
        solo_runs: 1,
        ..ldm_bench::Options::default()
    };
    let report = ldm_bench::run(target, Mix::built_in().unwrap(), options, |_| {}).await.unwrap();
    assert_eq!((report.total.sent, report.total.ok), (30, 30), "{report}");
    let json = serde_json::to_string(&report).unwrap();
    let back: ldm_bench::Report = serde_json::from_str(&json).unwrap();
    assert_eq!(back, report);
    let mut faster = report.clone();
    faster.total.images_per_s *= 2.0;
    let compared = ldm_bench::compare(&report, &faster);
    let line = compared.lines().find(|line| line.starts_with("total: images/s")).unwrap();
    assert!(line.ends_with(" 2.000"), "{line}");
    assert!(report.to_string().lines().any(|line| line.starts_with("total ")));
}
