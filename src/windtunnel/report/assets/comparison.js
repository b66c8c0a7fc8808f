// Copies the signature; where the browser does not allow it, it is selected, for the keyboard to copy.
const button = document.getElementById("copy");
const signature = document.getElementById("signature");
button.addEventListener("click", async () => {
  getSelection().selectAllChildren(signature);
  try {
    await navigator.clipboard.writeText(signature.textContent);
    button.textContent = "copied";
  } catch {
    button.textContent = "selected: copy it with the keyboard";
  }
});
