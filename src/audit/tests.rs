use super::*;

fn entry(target: &str) -> Entry {
    Entry { verb: "pairing.approve".into(), target: target.into(), outcome: "approved".into(), ..Entry::default() }
}

#[tokio::test]
async fn records_survive_reopening_and_page() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(dir.path()).unwrap();
    for n in 0..10 {
        audit.append(entry(&n.to_string())).await.unwrap().wait().await.unwrap();
    }
    drop(audit);
    let audit = Audit::open(dir.path()).unwrap();
    audit.append(entry("again")).await.unwrap().wait().await.unwrap();
    let newest = audit.page(None, 3).await.unwrap();
    assert_eq!(newest.head.n, 11);
    assert_eq!(newest.records.iter().map(|r| r.n).collect::<Vec<_>>(), [9, 10, 11]);
    let page = audit.page(Some(2), 4).await.unwrap();
    assert_eq!(page.records.iter().map(|r| r.n).collect::<Vec<_>>(), [3, 4, 5, 6]);
    assert!(page.more);
}

#[tokio::test]
async fn a_torn_last_line_is_cut_and_the_chain_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(dir.path()).unwrap();
    audit.append(entry("1")).await.unwrap().wait().await.unwrap();
    drop(audit);
    let path = current_segment(dir.path());
    let mut torn = std::fs::read(&path).unwrap();
    torn.extend_from_slice(b"{\"n\":2,\"at\":\"20");
    std::fs::write(&path, torn).unwrap();
    let audit = Audit::open(dir.path()).unwrap();
    audit.append(entry("2")).await.unwrap().wait().await.unwrap();
    assert_eq!(audit.page(None, 10).await.unwrap().head.n, 2);
}

#[tokio::test]
async fn a_broken_chain_is_set_aside_not_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(dir.path()).unwrap();
    audit.append(entry("precious")).await.unwrap().wait().await.unwrap();
    drop(audit);
    let path = current_segment(dir.path());
    let changed = std::fs::read_to_string(&path).unwrap().replace("precious", "harmless");
    std::fs::write(&path, &changed).unwrap();
    let audit = Audit::open(dir.path()).unwrap();
    assert_eq!(audit.page(None, 10).await.unwrap().records[0].entry.verb, "audit.restart");
    let aside = std::fs::read_dir(dir.path()).unwrap().filter_map(Result::ok);
    let aside: Vec<_> = aside.filter(|f| f.file_name().to_string_lossy().contains("broken")).collect();
    assert_eq!(std::fs::read_to_string(aside[0].path()).unwrap(), changed);
}

#[test]
fn segments_rotate_and_stay_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path()).unwrap();
    for n in 0..30u64 {
        writer.write(&entry(&n.to_string())).unwrap();
        if n % 5 == 4 {
            writer.rotate().unwrap();
        }
    }
    let files = chain::segments(dir.path());
    assert_eq!(files.len(), 1 + OLD_SEGMENTS as usize);
    assert_eq!(chain::walk(&files, |_| ()).unwrap().unwrap().n, 30);
}
