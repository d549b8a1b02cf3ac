using 'main.bicep'

param environmentName = readEnvironmentVariable('AZURE_ENV_NAME', 'companion-prod')
param location = readEnvironmentVariable('AZURE_LOCATION', 'swedencentral')
param ownerKey = readEnvironmentVariable('COMPANION_OWNER_KEY')
param tags = {
  stage: 'prod'
}

// Two instances that are never stopped: nobody waits for a cold start, and an update always finds one to keep.
param size = {
  memoryMB: 2048
  httpConcurrency: 32
  alwaysReady: 2
  maxInstances: 100
}
param cosmos = {
  capacity: 'autoscale'
  maxRu: 4000
  backup: 'Continuous30Days'
}
param keepLogs = {
  retentionDays: 90
  dailyCapGb: 10
}
param deployments = [
  { name: 'gpt-5-mini', model: 'gpt-5-mini', version: '2025-08-07', sku: 'DataZoneStandard', capacity: 500 }
  { name: 'gpt-5', model: 'gpt-5', version: '2025-08-07', sku: 'DataZoneStandard', capacity: 200 }
  { name: 'text-embedding-3-small', model: 'text-embedding-3-small', version: '1', sku: 'DataZoneStandard', capacity: 200 }
]
param filterMode = 'Asynchronous_filter'
param zoneRedundant = true
param privateNetwork = true
param edge = 'premium'
param flagStore = 'standard'
param deleteLock = true
param alertEmails = [
  readEnvironmentVariable('COMPANION_ALERT_EMAIL')
]
param monthlyBudget = 1000
