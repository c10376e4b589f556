import { action, announce, empty, h, table, visible } from "../dom.js";
import { quoted, time } from "../format.js";

// What the next version changes, by what is known of both.
const changed = (one, before) => {
  if (!before) return "first one known";
  const code = one.digest && before.digest ? one.digest !== before.digest : one.image !== before.image;
  const found = [code && "code", !code && one.image !== before.image && "name of the image", one.config_hash !== before.config_hash && "configuration"];
  return found.filter(Boolean).join(", ") || "nothing";
};

// The reference that a rollback sets: of what the image meant when it was deployed, where that is known.
const pinned = ({ image, digest }) => (digest && !image.includes("@") ? `${image}@${digest}` : image);

// The newest version first, as the API tells them. With buttons that go back, for those who may change the function.
export function versions(found, app, path, editable, save) {
  if (!found.length) return empty("No version is known yet.", path.startsWith("/") ? `hearth versions ${quoted(app)} ${quoted(path)}` : null);
  const problem = h("div", {});
  const back = (one) => async () => {
    await save({ image: pinned(one) });
    announce("Rolled back");
  };
  const rows = found.map((one, age) => [
    { num: age ? `−${age}` : "now" },
    h("code", {}, visible(one.image.split("@")[0])),
    h("code", { title: visible(one.digest) }, visible(one.digest.split(":").pop().slice(0, 12)) || "–"),
    changed(one, found[age + 1]),
    visible(one.principal) || "–",
    time(one.created_at),
    editable && age && pinned(one) !== pinned(found[0])
      ? action("Roll back", `Roll back to version −${age}`, problem, back(one))
      : "",
  ]);
  return h("div", {}, table("Versions", ["#Version", "Image", "Digest", "Changed", "By", "Deployed", "Actions"], rows), problem);
}
