// Writes text/unicode_data.cc: the character sets of the Unicode versions that tokenizers are
// defined with, from the packages @unicode/unicode-VERSION of the npm registry.
//
//   npm install --prefix DIR --ignore-scripts @unicode/unicode-{8,9,14,15,16,17}.0.0
//   node scripts/unicode_tables.mjs DIR > text/unicode_data.cc
//
// The versions are those that Hugging Face's tokenizers 0.23 behaves by, found by asking it about
// every code point: regular expressions (Oniguruma 6.9.10) and added tokens 16.0, "Digits" and
// "Lowercase" 17.0, "Punctuation" 8.0, "StripAccents" and the normal forms 9.0.
import fs from 'node:fs';
import path from 'node:path';
import {pathToFileURL} from 'node:url';

const LIBRARY = '14.0.0';  // the oldest PCRE2 that builds this has these tables (10.42)
const REGEX = '16.0.0';
const DIGITS = '17.0.0';
const LIBRARY_CASE = '15.0.0';  // utf8proc 2.8
const LOWERCASE = '17.0.0';
const PUNCTUATION = '8.0.0';
const NORMAL_FORMS = '9.0.0';
const END = 0x110000;

const CATEGORIES = {
  Lu: 'Uppercase_Letter', Ll: 'Lowercase_Letter', Lt: 'Titlecase_Letter', Lm: 'Modifier_Letter',
  Lo: 'Other_Letter', Mn: 'Nonspacing_Mark', Mc: 'Spacing_Mark', Me: 'Enclosing_Mark',
  Nd: 'Decimal_Number', Nl: 'Letter_Number', No: 'Other_Number', Pc: 'Connector_Punctuation',
  Pd: 'Dash_Punctuation', Ps: 'Open_Punctuation', Pe: 'Close_Punctuation',
  Pi: 'Initial_Punctuation', Pf: 'Final_Punctuation', Po: 'Other_Punctuation', Sm: 'Math_Symbol',
  Sc: 'Currency_Symbol', Sk: 'Modifier_Symbol', So: 'Other_Symbol', Zs: 'Space_Separator',
  Zl: 'Line_Separator', Zp: 'Paragraph_Separator', Cc: 'Control', Cf: 'Format',
  Co: 'Private_Use', Cn: 'Unassigned', L: 'Letter', 'L&': 'Cased_Letter', M: 'Mark', N: 'Number',
  P: 'Punctuation', S: 'Symbol', Z: 'Separator', C: 'Other',
};
const BINARY = [
  'Alphabetic', 'Cased', 'Emoji', 'Emoji_Modifier_Base', 'Emoji_Presentation',
  'Extended_Pictographic', 'ID_Continue', 'ID_Start', 'Ideographic', 'Lowercase',
  'Unified_Ideograph', 'Uppercase', 'XID_Continue', 'XID_Start',
];
// Short names of the scripts that grew (PropertyValueAliases.txt).
const SCRIPT_CODES = {
  Arabic: 'Arab', Balinese: 'Bali', Common: 'Zyyy', Cyrillic: 'Cyrl', Devanagari: 'Deva',
  Egyptian_Hieroglyphs: 'Egyp', Han: 'Hani', Hiragana: 'Hira', Kannada: 'Knda', Katakana: 'Kana',
  Khitan_Small_Script: 'Kits', Khojki: 'Khoj', Lao: 'Laoo', Latin: 'Latn', Myanmar: 'Mymr',
};

const packages = process.argv[2];
const root = version => path.resolve(packages, 'node_modules', '@unicode', `unicode-${version}`);
const load = async (version, ...name) =>
    (await import(pathToFileURL(path.join(root(version), ...name)))).default;

/// Membership of every code point.
async function set(version, kind, name) {
  const out = new Uint8Array(END);
  for (const {begin, end} of await load(version, kind, name, 'ranges.mjs')) out.fill(1, begin, end);
  return out;
}
const scripts = version => fs.readdirSync(path.join(root(version), 'Script'));

function ranges(members) {
  const out = [];
  for (let c = 0; c < END; ++c) {
    if (!members[c]) continue;
    const first = c;
    while (c + 1 < END && members[c + 1]) ++c;
    out.push([first, c]);
  }
  return out;
}
const hex = c => '0x' + c.toString(16).toUpperCase().padStart(4, '0');
const without = (a, b) => a.map((x, i) => (x && !b[i] ? 1 : 0));
const either = (...sets) => sets[0].map((_, i) => (sets.some(s => s[i]) ? 1 : 0));

function rows(cells) {
  const lines = [];
  let line = '   ';
  for (const cell of cells) {
    if (line.length + cell.length + 2 > 100) {
      lines.push(line);
      line = '   ';
    }
    line += ` ${cell},`;
  }
  return [...lines, line].join('\n');
}
const table = (name, members) => `constexpr CodePointRange ${name}[] = {\n` +
    rows(ranges(members).map(([first, last]) => `{${hex(first)}, ${hex(last)}}`)) + '\n};\n';

const changed = new Uint8Array(END);
const properties = [];
const tables = [];
function property(names, old, now) {
  const added = without(now, old), removed = without(old, now);
  if (!added.includes(1) && !removed.includes(1)) return;
  for (let c = 0; c < END; ++c) if (added[c] || removed[c]) changed[c] = 1;
  const change = !removed.includes(1) ? 'kGrown' : !added.includes(1) ? 'kShrunk' : 'kBoth';
  const name = 'k' + names[0].replace('&', 'Cased').replaceAll('_', '');
  tables.push(table(name, {kGrown: added, kShrunk: removed, kBoth: now}[change]));
  for (const n of names) {
    const key = n.toLowerCase().replaceAll('_', '');
    properties.push(`    {"${key}", ${name}, Change::${change}},`);
  }
}

for (const [code, name] of Object.entries(CATEGORIES)) {
  property([code], await set(LIBRARY, 'General_Category', name),
           await set(REGEX, 'General_Category', name));
}
for (const name of BINARY) {
  property([name], await set(LIBRARY, 'Binary_Property', name),
           await set(REGEX, 'Binary_Property', name));
}
const known = scripts(LIBRARY);
for (const name of scripts(REGEX)) {
  // The library refuses names of scripts that it does not have, and "Unknown" names what is none.
  if (name === 'Unknown' || !known.includes(name)) continue;
  const names = name in SCRIPT_CODES ? [name, SCRIPT_CODES[name]] : [name];
  property(names, await set(LIBRARY, 'Script', name), await set(REGEX, 'Script', name));
}

const word = either(await set(REGEX, 'Binary_Property', 'Alphabetic'),
                    await set(REGEX, 'Binary_Property', 'Join_Control'),
                    await set(REGEX, 'General_Category', 'Mark'),
                    await set(REGEX, 'General_Category', 'Decimal_Number'),
                    await set(REGEX, 'General_Category', 'Connector_Punctuation'));
const lower = new Map(await load(LOWERCASE, 'Simple_Case_Mapping', 'Lowercase', 'code-points.mjs'));
const lowerBefore =
    new Map(await load(LIBRARY_CASE, 'Simple_Case_Mapping', 'Lowercase', 'code-points.mjs'));
const newLower = [...lower].filter(([c, to]) => lowerBefore.get(c) !== to).sort((a, b) => a[0] - b[0]);

process.stdout.write(`// Generated by scripts/unicode_tables.mjs from Unicode ${
    [PUNCTUATION, NORMAL_FORMS, LIBRARY, LIBRARY_CASE, REGEX, DIGITS].join(', ')}: do not edit.
// Unicode data: Copyright Unicode, Inc., Unicode License v3.
// clang-format off
#include "text/unicode_data.h"

namespace chimera::tokenizer {
namespace {

using Change = ChangedProperty::Change;

${tables.join('\n')}
constexpr ChangedProperty kProperties[] = {
${properties.join('\n')}
};

${table('kChanged', changed)}
${table('kWord', word)}
${table('kNumeric', await set(DIGITS, 'General_Category', 'Number'))}
${table('kPunctuation', await set(PUNCTUATION, 'General_Category', 'Punctuation'))}
${table('kMarks', await set(NORMAL_FORMS, 'General_Category', 'Mark'))}
${table('kUnknownToNormalForms', await set(NORMAL_FORMS, 'General_Category', 'Unassigned'))}
constexpr CaseMapping kNewLowercase[] = {
${rows(newLower.map(([from, to]) => `{${hex(from)}, ${hex(to)}}`))}
};

}  // namespace

std::span<const ChangedProperty> changed_properties() { return kProperties; }
CodePointSet changed_characters() { return kChanged; }
CodePointSet word_characters() { return kWord; }
CodePointSet numeric_characters() { return kNumeric; }
CodePointSet punctuation_characters() { return kPunctuation; }
CodePointSet mark_characters() { return kMarks; }
CodePointSet unknown_to_normal_forms() { return kUnknownToNormalForms; }
std::span<const CaseMapping> new_lowercase() { return kNewLowercase; }

}  // namespace chimera::tokenizer
`);
