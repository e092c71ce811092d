//! The client library of Berth's own programs takes our kubeconfigs, and has
//! exactly the rights of the user that they name.

use anyhow::{Context, Result, ensure};
use berth_kube::{ApiServer, Options, eventually};
use berth_lab::skip;
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

#[test]
fn kube_rs_reads_what_rbac_lets_it() -> Result<()> {
    if let Err(why) = berth_kube::available() {
        skip!("{why:#}");
    }
    let server = ApiServer::start(Options::default())?;
    server.kubectl([
        "create",
        "clusterrole",
        "see",
        "--verb=list",
        "--resource=services",
    ])?;
    server.kubectl([
        "create",
        "clusterrolebinding",
        "see",
        "--clusterrole=see",
        "--group=berth",
    ])?;
    let path = server.kubeconfig_of("berth-dns", Some("berth"))?;
    let runtime = tokio::runtime::Runtime::new()?;
    let client = runtime.block_on(async {
        let config = Kubeconfig::read_from(path)?;
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        Client::try_from(config).context("make a client")
    })?;
    let all = ListParams::default();
    let services: Api<Service> = Api::all(client.clone());
    eventually("the one Service that there is", || {
        let list = runtime.block_on(services.list(&all))?;
        let names: Vec<_> = list
            .iter()
            .map(|item| item.metadata.name.as_deref())
            .collect();
        ensure!(names == [Some("kubernetes")], "{names:?}");
        Ok(())
    })?;
    let secrets: Api<Secret> = Api::all(client);
    match runtime.block_on(secrets.list(&all)) {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 403, "{status:?}"),
        other => panic!("{other:?}: it was not refused"),
    }
    Ok(())
}
