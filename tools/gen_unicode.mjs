// Writes src/tok/unicode_tab.c: general categories and scripts of all code points, as the
// Unicode version of the running node has them (node -p process.versions.unicode).
//   node tools/gen_unicode.mjs > src/tok/unicode_tab.c
const gcs = ["Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe",
  "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn"];
const gcTests = gcs.map((g) => new RegExp(`^\\p{gc=${g}}$`, "u"));
const names = `Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak Bengali Bhaiksuki
Bopomofo Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian Caucasian_Albanian Chakma Cham Cherokee Chorasmian Common
Coptic Cuneiform Cypriot Cypro_Minoan Cyrillic Deseret Devanagari Dives_Akuru Dogra Duployan Egyptian_Hieroglyphs Elbasan
Elymaic Ethiopic Georgian Glagolitic Gothic Grantha Greek Gujarati Gunjala_Gondi Gurmukhi Han Hangul Hanifi_Rohingya Hanunoo
Hatran Hebrew Hiragana Imperial_Aramaic Inherited Inscriptional_Pahlavi Inscriptional_Parthian Javanese Kaithi Kannada
Katakana Kawi Kayah_Li Kharoshthi Khitan_Small_Script Khmer Khojki Khudawadi Lao Latin Lepcha Limbu Linear_A Linear_B Lisu
Lycian Lydian Mahajani Makasar Malayalam Mandaic Manichaean Marchen Masaram_Gondi Medefaidrin Meetei_Mayek Mende_Kikakui
Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi Mongolian Mro Multani Myanmar Nabataean Nag_Mundari Nandinagari New_Tai_Lue
Newa Nko Nushu Nyiakeng_Puachue_Hmong Ogham Ol_Chiki Old_Hungarian Old_Italic Old_North_Arabian Old_Permic Old_Persian
Old_Sogdian Old_South_Arabian Old_Turkic Old_Uyghur Oriya Osage Osmanya Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa
Phoenician Psalter_Pahlavi Rejang Runic Samaritan Saurashtra Sharada Shavian Siddham SignWriting Sinhala Sogdian
Sora_Sompeng Soyombo Sundanese Syloti_Nagri Syriac Tagalog Tagbanwa Tai_Le Tai_Tham Tai_Viet Takri Tamil Tangsa Tangut
Telugu Thaana Thai Tibetan Tifinagh Tirhuta Toto Ugaritic Vai Vithkuqi Wancho Warang_Citi Yezidi Yi Zanabazar_Square`
  .split(/\s+/);
const scTests = names.map((n) => new RegExp(`^\\p{Script=${n}}$`, "u"));

function ranges(classOf) {
  const out = [];
  let last = -1;
  for (let cp = 0; cp < 0x110000; cp++) {
    const k = classOf(cp);
    if (k !== last) out.push([cp, k]);
    last = k;
  }
  return out;
}
function first(tests, prev) {
  let hint = 0;
  return (cp) => {
    const s = String.fromCodePoint(cp);
    if (tests[hint].test(s)) return hint;
    const i = tests.findIndex((t) => t.test(s));
    if (i >= 0) hint = i;
    return i;
  };
}
function emit(name, count, rows) {
  const words = rows.map(([cp, k]) => "0x" + (((cp << 8) | k) >>> 0).toString(16));
  let text = `const uint32_t ${name}[] = {\n`;
  for (let i = 0; i < words.length; i += 10) text += "    " + words.slice(i, i + 10).join(", ") + ",\n";
  return text + `};\nconst size_t ${count} = ${rows.length};\n`;
}
const scIndex = first(scTests);
const special = { Any: 0, Hiragana: 1, Katakana: 1, Han: 1 };
let text = `/* Made by tools/gen_unicode.mjs from Unicode ${process.versions.unicode}: do not edit.
 * Each word is the first code point of a run << 8 | its class; see unicode.h. */
#include "tok/unicode.h"

`;
text += emit("tok_gc_runs", "tok_n_gc_runs", ranges(first(gcTests)));
text += "\n" + emit("tok_script_runs", "tok_n_script_runs", ranges((cp) => {
  const i = scIndex(cp);
  if (i < 0) return 0;
  return special[names[i]] ?? i + 2;
}));
process.stdout.write(text);
