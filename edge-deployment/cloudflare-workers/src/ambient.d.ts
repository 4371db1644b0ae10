// The policy module is made by `repomind-run edge build` and joined when the worker is bundled or deployed.
declare module "*/policy.js" {
  const policy: unknown;
  export default policy;
}
