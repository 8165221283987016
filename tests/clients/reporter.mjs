// One line a test, failures with their reason, and last "N passed, N failed, N skipped".
export default async function* report(events) {
  let passed = 0, failed = 0, skipped = 0;
  for await (const { type, data } of events) {
    if (type === 'test:stdout' || type === 'test:stderr') yield data.message;
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    if (data.details?.type === 'suite') continue;
    const name = `${'  '.repeat(data.nesting)}${data.name}`;
    if (data.skip !== undefined && data.skip !== false) {
      skipped++;
      yield `skip  ${name}${typeof data.skip === 'string' ? ` (${data.skip})` : ''}\n`;
    } else if (type === 'test:pass') {
      passed++;
      yield `ok    ${name}\n`;
    } else {
      failed++;
      const error = data.details?.error;
      const cause = error?.cause ?? error;
      yield `FAIL  ${name}\n${String(cause?.stack ?? cause).replace(/^/gm, '        ')}\n`;
    }
  }
  yield `\n${passed} passed, ${failed} failed, ${skipped} skipped\n`;
}
